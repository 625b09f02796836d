"""Reads the HTML pages that the package writes."""

import html.parser
import re


class ParsedPage(html.parser.HTMLParser):
    """Reads an HTML page: its addresses, its tables as text, the number of its pictures."""

    def __init__(self, file):
        super().__init__()
        self.text = file.read_text()
        self.addresses, self.tables, self.images, self.tags = [], [], 0, []
        self._cell = False
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset") and value
        ]
        self.images += tag == "img"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.tables[-1][-1][-1] += data.strip()

    def table(self, *head):
        """Returns the rows of the first table whose header starts with `head`."""
        return next(rows[1:] for rows in self.tables if tuple(rows[0][: len(head)]) == head)

    def assert_self_contained(self):
        """Asserts that the page loads nothing, neither local nor remote."""
        assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in self.addresses)
        assert "@import" not in self.text
        assert not re.search(r"https?://|url\(", self.text)
        assert not {"link", "iframe", "object"} & set(self.tags)

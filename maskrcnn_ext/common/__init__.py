"""Small tools that every part of the package shares, each written once."""

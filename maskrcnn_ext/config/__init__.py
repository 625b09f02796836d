"""LazyConfigs: finding, checking, changing and saving them."""

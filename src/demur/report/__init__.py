"""A report that opens in a browser: one file, no network. Reads finished folders, writes HTML."""

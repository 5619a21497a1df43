"""Other tools' reports as rows: kept beside ours, never ranked with them."""

"""One module per schema version; a version that was released is never edited again."""

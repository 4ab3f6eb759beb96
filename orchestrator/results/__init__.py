"""What came of a sweep: accepted rows as SQL views, tables, text and files."""

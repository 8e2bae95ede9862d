"""What looks at a whole store: checks, copies, descriptions. Imported when used."""

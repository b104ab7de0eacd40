"""What the database is: relations, columns, unique indexes, and what reaches a configured table. Imports the root of
``cache`` alone."""

"""How incoming data is read: two layouts, the contract of a row, pseudonyms, and listening."""

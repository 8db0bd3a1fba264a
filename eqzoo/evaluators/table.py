def format_table(rows): return str(rows)

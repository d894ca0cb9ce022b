"""The benchmark of strategies over layouts of sites: records of whole runs, a table, a figure."""

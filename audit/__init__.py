"""What an auditor asks of a run: is the record intact, what was promised and spent, what will the rest cost."""

"""Reading a run folder for people: HTML report, comparison of two runs, example recommendations."""

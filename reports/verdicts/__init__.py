"""Did something change? Comparisons of runs, each with how sure it is."""

"""Stage `data`: generates or imports rows, splits them, checks the splits for leaks."""

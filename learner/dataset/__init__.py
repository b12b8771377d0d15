"""Datasets: recorded episodes in files, which many write at once and which learning reads as if they were in memory."""

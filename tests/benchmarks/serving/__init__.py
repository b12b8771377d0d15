"""``make bench-serve``: the service beside plain FastAPI and Ray Serve as it comes."""

"""``rowtap demo``: embedded PostgreSQL and Redis servers, and a short scripted session through the proxy."""

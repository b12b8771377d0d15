"""Flying: environments, episodes, policies, and the fleet of Ray actors that collects experience."""

"""What stands between the network and the routes, and what a registration may name."""

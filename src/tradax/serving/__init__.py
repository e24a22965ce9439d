"""A run's policy at work: a bar in, an order out, and the account kept between them."""

"""The only place that knows Flower: messages, the server's workflow and the site's courier."""

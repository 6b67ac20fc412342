"""Routes, protocols and the prediction log: what a gateway is made of."""

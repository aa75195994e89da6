"""Camera addresses in, samples on the time grid out. The only room that knows `av`."""

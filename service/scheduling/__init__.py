"""Which stack trains where: a scheduler for several kinds of device, and a simulator of it. Pure: it knows neither Ray nor torch."""

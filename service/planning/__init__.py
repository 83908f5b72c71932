"""What a run would do, at what cost, on which device. No torch."""

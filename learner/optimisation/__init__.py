"""Steps of the optimiser: recorded, and shared between learners."""

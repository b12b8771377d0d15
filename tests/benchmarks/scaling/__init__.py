"""What one learner can take: the real Trainer and Fleet on many Ray nodes, with flying and learning simulated."""

"""What one learner can take: the real Trainer and Fleet on a Ray cluster of many nodes, with flying and learning simulated."""

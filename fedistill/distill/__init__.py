"""From the ensemble's target to a student: encoding, students, losses, training."""

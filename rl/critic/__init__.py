"""The closed loop: the policy's own judgement, trained on what was verified while RL goes on."""

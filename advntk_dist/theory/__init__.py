"""The theory of Fu & Wang (2024) as numbers: ARK, Xi(t), schedules, exact and closed-form dynamics, output law."""

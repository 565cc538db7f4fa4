"""What knows flax: collectors of activities and layer tables for foreign models."""

"""CamVid, split by light."""

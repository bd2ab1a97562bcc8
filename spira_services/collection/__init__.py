"""Recordings in: devices in wards send what was recorded, and get a receipt for it."""

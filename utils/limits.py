"""Limits on input that would need too much memory."""

# Pixels of the largest picture or video frame that is decoded: twice an 8K frame, and more than
# cameras of 61 megapixels take. Preparing one for a network takes about 30 bytes per pixel: 2 GB.
MAX_PIXELS = 64 << 20

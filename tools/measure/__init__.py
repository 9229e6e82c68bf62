"""Measurements that several programs share."""

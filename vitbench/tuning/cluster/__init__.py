"""Joins a Ray cluster, counts its capacity and checks that its nodes reach the storage."""

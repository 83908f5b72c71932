"""Pruners whose masks change while training goes on."""

"""Schedules: slots that fire once, Celery Beat's view of them, and whether they are kept."""

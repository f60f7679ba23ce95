"""Celery as a doorbell: queues, ringing, the consumer, its thread pool and the watchdog."""

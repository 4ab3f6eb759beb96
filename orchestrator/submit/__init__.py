"""`robustsweep submit`: a sweep as a job of a queue. A job is a file that a person might have written.
Where the client of the queue is there, it is handed in too.

Each queue has a module that makes its file out of a `Request`, and nothing else.
"""

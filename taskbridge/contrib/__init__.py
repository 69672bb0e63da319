"""Ready parts for other frameworks; each module needs its framework, and nothing here is imported by the library.

`asgi` and `wsgi` receive webhooks in any web server; `fastapi`, `flask` and `django` are what these frameworks take.
"""

"""The HTTP service: from a request to a policy's answer, in one process, behind Ray Serve and HAProxy."""

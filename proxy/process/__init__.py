"""The processes of ``rowtap serve``: one worker or several, their supervisor, and the admin endpoint."""

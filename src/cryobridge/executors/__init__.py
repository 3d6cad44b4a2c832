"""Where the tasks of a plan run: on devices of this process, on a cluster, or as a part of an array job."""

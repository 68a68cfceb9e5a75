"""Work on Ray actors, the one mechanism for Gram tiles, batches of images, resident tiles and finite networks.

``session`` starts or joins Ray, ``pool`` starts, pings, replaces and ends actors, ``scheduler`` hands tasks to them,
``autoscaling`` decides how many there should be. Nothing else in the package creates, watches or ends an actor.
"""

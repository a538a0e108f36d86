"""The verb ``plan``: what scoring a manifest with a bundle would come to, before it is begun."""

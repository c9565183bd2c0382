"""Paediatric chest X-rays, normal or pneumonia (Kermany)."""

"""The reader of optimised modules: on a text written here, and against what XLA compiles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from multimed_jax.planning.hlo import Collective, read_program, shape_bytes

# 3 rounds of a loop around a gather and a product, a product in a fusion that is called twice, and
# one of each notation of replica groups.
TEXT = """HloModule jit_f, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%fused (p.1: f32[8,4], q.1: f32[4,4]) -> f32[8,4] {
  %p.1 = f32[8,4]{1,0} parameter(0)
  %q.1 = f32[4,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,4]{1,0} dot(%p.1, %q.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%body (t: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %t = (s32[], f32[8,4]{1,0}) parameter(0)
  %x.1 = f32[8,4]{1,0} get-tuple-element(%t), index=1
  %w.1 = bf16[2,4]{1,0} constant({...})
  %ag.1 = bf16[4,4]{1,0} all-gather(%w.1), replica_groups=mesh['x'=2,'y'=4] {'x'}, dimensions={0}
  %dot.2 = f32[8,4]{1,0} dot(%x.1, %ag.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r.1 = (s32[], /*index=1*/f32[8,4]{1,0}) tuple(%x.1, %dot.2)
}

%cond (c: (s32[], f32[8,4])) -> pred[] {
  %c = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %lt.1 = pred[] constant(true)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %k = f32[4,4]{1,0} constant({...})
  %f.1 = f32[8,4]{1,0} fusion(%x, %k), kind=kOutput, calls=%fused
  %f.2 = f32[8,4]{1,0} fusion(%f.1, %k), kind=kOutput, calls=%fused
  %t.1 = (s32[], f32[8,4]{1,0}) tuple(%f.2)
  %w.2 = (s32[], f32[8,4]{1,0}) while(%t.1), condition=%cond, body=%body, TRIPS
  %g.1 = f32[8,4]{1,0} get-tuple-element(%w.2), index=1
  %ar.1 = f32[8,4]{1,0} all-reduce(%g.1), replica_groups={{0,1},{2,3}}, to_apply=%sum
  %rs.1 = f32[2,4]{1,0} reduce-scatter(%ar.1), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %o.1 = f32[8,4]{1,0} copy(%ar.1)
}
"""


TEXT = TEXT.replace("TRIPS", 'backend_config={"known_trip_count":{"n":"3"}}')


def test_a_module_written_by_hand():
    """Products: 2 x 8 x 4 x 4 each, two by fusions and three by the loop."""
    found = read_program(TEXT)
    assert found.dot_flops == 5 * 2 * 8 * 4 * 4
    assert found.unknown_loops == 0
    assert sorted(found.collectives, key=lambda c: c.kind) == [
        Collective("all-gather", 2 * 16, 3, 2),
        Collective("all-reduce", 4 * 32, 1, 2),
        Collective("reduce-scatter", 4 * 8 * 4, 1, 4),
    ]
    assert found.traffic()["all-gather"] == {"count": 3, "bytes": 96}


def test_a_loop_that_does_not_say_how_often_is_counted():
    found = read_program(TEXT.replace('{"known_trip_count":{"n":"3"}}', "{}"))
    assert found.unknown_loops == 1
    assert found.dot_flops == 3 * 2 * 8 * 4 * 4


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[4,8]{1,0}", 128),
        ("bf16[3]", 6),
        ("pred[]", 1),
        ("(f32[2], s64[2]{0})", 24),
        ("token[]", 0),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert shape_bytes(shape) == size


def test_a_scan_over_a_mesh_that_xla_compiles():
    """5 layers of 64 x 64 on 2 rows a device: one gather forward, one sum backward for each."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))

    def loss(w, x):
        def body(x, w):
            w = jax.lax.with_sharding_constraint(w, PartitionSpec(None, None))
            return jax.lax.with_sharding_constraint(x @ w, PartitionSpec("x")), None

        return jax.lax.scan(body, x, w)[0].sum()

    def shaped(spec, *shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))

    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(loss))
        args = shaped(PartitionSpec(None, "x"), 5, 64, 64), shaped(PartitionSpec("x"), 16, 64)
        found = read_program(str(step.lower(*args).compile().as_text()))
    # Forward, gradient of the weights, and gradient of the rows (of the first layer none).
    product = 2 * 2 * 64 * 64
    assert found.dot_flops in (15 * product, 14 * product)
    gathers = [c for c in found.collectives if c.kind == "all-gather"]
    assert sum(c.times for c in gathers) in (5, 10) and {c.group for c in gathers} == {8}
    assert {c.bytes for c in gathers} == {4 * 64 * 64}
    assert found.traffic()["all-reduce"]["bytes"] >= 5 * 4 * 64 * 64
    assert set(found.traffic()) == {"all-gather", "all-reduce"}

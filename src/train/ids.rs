//! Parameter ids that survive a restart: burn draws them at random, and the optimizer's record is
//! keyed by them, so each parameter's id is made from its path instead.

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::Tensor,
};
use sha2::{Digest, Sha256};

/// Gives every float parameter the id that its path determines (the first 8 bytes of its SHA-256).
pub fn assign_stable_ids<M: Module>(module: M) -> M {
    module.map(&mut Assign { path: Vec::new() })
}

struct Assign {
    path: Vec<String>,
}

impl ModuleMapper for Assign {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let digest = Sha256::digest(self.path.join("."));
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&digest[..8]);
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(ParamId::from(u64::from_le_bytes(bytes)), tensor, mapper)
    }
}

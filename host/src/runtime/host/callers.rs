//! `kontor:service/callers`

use crate::runtime::bindings::callers::Host;
use crate::runtime::bindings::types;
use crate::runtime::call::Guest;

impl Host for Guest<'_> {
    fn current(&mut self) -> wasmtime::Result<types::Caller> {
        self.scope.call.may_see_caller()?;
        self.scope.used_caller = true;
        Ok(types::Caller::from(&self.scope.caller))
    }
}
